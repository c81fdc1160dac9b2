"""What a picture shows: where its subjects are, what they are, which colours they have."""
