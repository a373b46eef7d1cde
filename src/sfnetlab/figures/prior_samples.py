"""What an autoencoder makes of codes that are drawn from its prior: galaxies that never were."""

from sfnetlab.figures.contact_sheet import plot_contact_sheet
from sfnetlab.figures.findings import Figures, Findings


def draw(findings: Findings) -> Figures:
    """Draw a sheet of decoded samples for each autoencoder that has a prior."""
    for table in findings.typical():
        samples = table.read_array("prior_samples")
        if samples is not None:
            figure = plot_contact_sheet(samples, [""] * len(samples), findings.pixel_scale_arcsec)
            yield f"prior_samples-{table.spec.features}", figure
