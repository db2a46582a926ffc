"""The conversation with the Email Bison API."""
