"""Model files that arrive while the agent runs: over MQTT, in a watched folder, by HTTPS. Off unless it is allowed.

Each way brings a file into the state folder, whole and checked, and hands it over; which model a stream runs is not
decided here. All of it happens in threads of its own: no reading waits for a model.
"""
