"""Images from files: folders, lists, decoding, caches."""
