"""The layers that the paper's Table 1 compares with self-attention: recurrent, convolutional."""
