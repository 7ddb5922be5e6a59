"""Domain values, status enums and their legal moves; nothing here does I/O."""
