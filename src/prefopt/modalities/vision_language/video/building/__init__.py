"""Making comparisons of long videos: a question about one clip among others, and questions over several scenes."""
