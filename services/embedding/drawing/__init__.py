"""Pictures with boxes, outlines and words on them, and other pictures beside them."""
