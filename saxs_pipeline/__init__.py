"""In-situ SAXS frames of growing nanocrystals to r(t), sigma_r(t), c_NC(t) and yield(t), with errors."""

__version__ = "0.1.0"
