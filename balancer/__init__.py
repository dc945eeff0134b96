"""Who gets which job, and when."""
