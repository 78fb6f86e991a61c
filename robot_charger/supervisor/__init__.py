"""The automated session: its flow as one table, the interlocks, the permits."""
