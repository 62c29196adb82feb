"""Public datasets: what there is, and how it is downloaded and unpacked."""
