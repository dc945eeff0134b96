"""What the peers' workers import: one small application each, as their documentation shows it."""
