"""A finished classifier as one file for other programs: from image to probabilities, with preprocessing inside."""

from bottleneck.export.files import ExportReport, check_export_target, export_model, export_onnx, export_torch

__all__ = ["ExportReport", "check_export_target", "export_model", "export_onnx", "export_torch"]
