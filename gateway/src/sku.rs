//! Gateway SKUs and their limits (azure.md sections 3 and 4).
