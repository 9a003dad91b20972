"""The training side of Transom: from recordings to model files. A running agent never imports it."""
