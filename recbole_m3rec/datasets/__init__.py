"""From raw data to atomic files; knows neither RecBole nor the plugin."""
