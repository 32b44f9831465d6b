"""Where values lie: rows, cores and stores, and the workshop that writes instructions on them."""
