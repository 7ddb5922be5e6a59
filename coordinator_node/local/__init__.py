"""What `demo` and `up` add: embedded Postgres, process supervisor, local model orchestrator and model host."""
