"""The units of time, said once: samples, frames and seconds.

Source: Moshi paper (arXiv 2410.00037), section 3.3.
"""

SAMPLE_RATE = 24_000                            # Hz: samples in a second
FRAME_SAMPLES = 1920                            # samples in a frame
FRAME_RATE = SAMPLE_RATE / FRAME_SAMPLES        # Hz: 12.5 frames in a second
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE     # 0.08: seconds in a frame
