"""How a student's learning uses its tutor's advice: one module per use, whose name and options are in ``registry``."""
