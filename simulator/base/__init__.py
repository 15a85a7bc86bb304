"""What every part of the simulator needs: errors, files, columns, arithmetic."""
