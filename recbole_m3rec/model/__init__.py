"""M3Rec: the network in plain PyTorch, and its adapters to RecBole."""
