# A container with everything in it, run by a user without a home that needs to be kept:
#
#     docker build -t resnet .
#     docker run --rm resnet inference.py --arch resnet20_cifar --image official/assets/example.jpg
#     docker run --rm -v /data:/data -v /cache:/cache resnet train.py --data /data/photos --save /data/out
#
# Weights and compiled kernels are kept in /cache (MGE_HOME); give it a volume to keep them.
FROM python:3.10-slim-bookworm

# g++ and libgomp1 are for the CPU kernels, which are compiled at their first use.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /resnet
COPY requirements.txt ./
# There is no libGL in this image, which the headless build of OpenCV does without.
RUN sed 's/^opencv-python==/opencv-python-headless==/' requirements.txt > headless.txt \
    && pip install --no-cache-dir -r headless.txt \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir --force-reinstall --no-deps "$(grep -o '^opencv-python-headless==[^ ]*' headless.txt)" \
    && rm headless.txt

COPY . .
RUN useradd --create-home resnet && mkdir /cache && chown resnet /cache
USER resnet
ENV MGE_HOME=/cache PYTHONDONTWRITEBYTECODE=1
VOLUME /cache
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
