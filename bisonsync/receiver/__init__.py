"""The webhook receiver: takes deliveries over HTTP, stores and applies them, and answers only then."""
