"""Long lives in short time: whole sessions in one loop, on a clock that jumps to whatever happens next."""
