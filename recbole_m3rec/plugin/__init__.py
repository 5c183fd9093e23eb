"""The only rooms that know RecBole's insides: mends, registration, configuration, guards."""
