"""From scores to rewards and advantages: computed once, whatever the number of ranks."""
