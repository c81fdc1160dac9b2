"""What a picture shows: where its subjects are, what they are, which colors they have."""
