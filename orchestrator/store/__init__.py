"""Key-value buckets with compare-and-set and watch."""
