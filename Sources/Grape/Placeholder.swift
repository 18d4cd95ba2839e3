// Grape
