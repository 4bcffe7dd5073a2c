"""Images: where they come from (sources), how views are made (augment), how batches are drawn (loader)."""
