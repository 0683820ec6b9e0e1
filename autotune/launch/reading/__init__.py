"""From what runs today to a plan: commands, scripts and manifests read back."""
