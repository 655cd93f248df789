"""What a run is made from: settings, methods, models, data, and the recipes composed of them."""
