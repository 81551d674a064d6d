"""Making comparisons of pictures: contrasting images, and the answers that are right and wrong for them."""
