
# The part above is BentoML's; from here on it is release <<number>> of <<model>>.
LABEL org.opencontainers.image.title="<<model>>" org.opencontainers.image.version="<<tag>>"

# The number is in every answer, and the service does not start when the artifact has another digest.
ENV EVERGREEN_RELEASE=<<number>>
ENV EVERGREEN_ARTIFACT=<<artifact>>
ENV BENTOML_PORT=<<port>>
EXPOSE <<port>>

# Everything that is written at run time, counts for /metrics too, is below /tmp: the rest can be mounted read-only.
ENV BENTOML_HOME=/tmp/bentoml
ENV BENTOML_DO_NOT_TRACK=true
ENV PYTHONDONTWRITEBYTECODE=1
VOLUME ["/tmp"]

# By number: Kubernetes takes no name as a proof that it is not root.
USER 1034:1034

# Arguments of `bentoml serve`. A connection that idles is closed by the proxy before it, never by this end, which
# would lose requests; what is in flight when the container is to end is answered.
CMD ["--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "30"]
