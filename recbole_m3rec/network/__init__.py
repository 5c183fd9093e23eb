"""The M3Rec network in plain PyTorch; knows neither RecBole nor the plugin."""
