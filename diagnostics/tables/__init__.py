"""Tables: what stands in which column (a file a subject), and how a table becomes text (table)."""
