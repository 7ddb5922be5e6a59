"""What the report API reads: one statement a question, bounded whatever the history holds."""
