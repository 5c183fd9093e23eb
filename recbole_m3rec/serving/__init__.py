"""A trained model in use, without RecBole: bundle, Recommender, service, page."""
