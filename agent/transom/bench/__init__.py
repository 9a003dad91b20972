"""What `transom bench` measures with: brokers, loads and programs in processes of their own, on 127.0.0.1 only."""
