"""What requests meet in a server that runs step after step: queues, batches, time to first token."""
