"""What training knows of a machine: latency and energy of layers or of whole networks."""
