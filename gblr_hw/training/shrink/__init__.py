"""What makes structures smaller while training: penalties, importance, projection, regrowth."""
