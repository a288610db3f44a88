"""Every setting of stoker, typed, in one frozen record.

Names are TorchServe's keys wherever the peer has one (contracts/torchserve.md
9.3), so a `config.properties` can be read as it is.  How a record comes to be
(defaults < file < environment < flags) is `load.py`'s noun.

Durations are seconds and sizes are bytes unless a unit says otherwise.
"""

# ruff: noqa: RUF009  (the calls build dataclass fields; that is their purpose)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stoker.settings.about import GIB, KIB, MIB, later, moot, peer, setting


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server; every process of it reads the same record."""

    # Listeners (1.1)
    inference_address: str = peer("http://127.0.0.1:8080", "Where predictions are served.")
    management_address: str = peer("http://127.0.0.1:8081", "Where models are managed.")
    metrics_address: str = peer("http://127.0.0.1:8082", "Where metrics are served.")
    enable_metrics_api: bool = peer(True, "Serve metrics at all.")
    dialect: str = setting(
        "torchserve", "Whose API listeners speak that do not say it: torchserve, mms, ..."
    )
    listeners: tuple[str, ...] = setting(
        (), "All listeners, in place of those three: `ADDRESS [DIALECT] [API+API]` items."
    )
    insecure_management: bool = setting(
        False, "Allow a management listener that other hosts can reach without credentials."
    )
    private_key_file: Path | None = peer(None, "PEM private key for https listeners.")
    certificate_file: Path | None = peer(None, "PEM certificate chain for https listeners.")
    client_ca_file: Path | None = setting(
        None, "PEM authorities; callers of an https management listener need their certificate."
    )
    keystore: Path | None = peer(None, "PKCS12 file with key and certificates for https.")
    keystore_pass: str = peer("changeit", "Password of the key store.", is_secret=True)
    keystore_type: str = peer("PKCS12", "Format of the key store.")
    unix_socket_mode: str = setting(
        "0600", "Who may connect to unix: listeners.", choices=("0600", "0660", "0666")
    )
    cors_allowed_origin: str = peer("", "Value of access-control-allow-origin.")
    cors_allowed_methods: str = peer("", "Value of access-control-allow-methods.")
    cors_allowed_headers: str = peer("", "Value of access-control-allow-headers.")

    # What is served beside the usual routes (2.8, 2.10)
    ts_open_inference_protocol: bool = peer(
        False, "Serve the Open Inference Protocol.", peer_env="OPEN_INFERENCE_PROTOCOL"
    )
    sagemaker: str = setting(
        "off",
        "Answer /ping as SageMaker expects of a container with a single model or with"
        " many, and serve /execution-parameters.",
        choices=("off", "single", "multi"),
    )
    endpoints: tuple[str, ...] = setting(
        (), "Endpoints of your own to serve: entry points of the group stoker.endpoints."
    )

    # Who may call what (3.10, 3.11)
    enable_model_api: bool = peer(True, "Allow registering and unregistering over HTTP.")
    disable_token_authorization: bool = peer(True, "Do not ask callers for tokens.")
    token_expiration_min: float = peer(
        60.0,
        "How long a token is valid.",
        unit="min",
        minimum=0,
        maximum=100 * 366 * 24 * 60,
        peer_env="TOKEN_EXPIRATION_TIME_MIN",
    )
    key_file: Path | None = setting(
        None, "File of the tokens; default key_file.json in the working directory."
    )
    health_needs_token: bool = setting(True, "Ask for a token on /ping and its like, too.")

    # Models and their archives (3, 6)
    model_store: Path | None = peer(None, "Folder of archives that may be registered by name.")
    workflow_store: Path | None = peer(None, "Folder of workflow archives; default model_store.")
    load_models: tuple[str, ...] = peer(
        (), "Models to register at start: `all`, or [name=]location items."
    )
    models: str = peer("", "JSON with per-model worker counts and timeouts.", peer_env="-")
    model_snapshot: str = peer(
        "", "JSON of a snapshot file: the models to serve instead of the stored ones.", peer_env="-"
    )
    restore_state: str = setting(
        "on",
        "Serve again what was served before a stop or a crash: on; off, and keep nothing for "
        "the next start; or clean, which puts what is stored aside first.",
        choices=("on", "off", "clean"),
    )
    config_snapshots: bool = setting(
        False, "Write TorchServe's snapshot files, into `config` in log_dir."
    )
    allowed_urls: tuple[str, ...] = peer(
        (), "Regular expressions; a remote archive must match one of them.", is_pattern=True
    )
    use_env_allowed_urls: bool = peer(
        False, "Let TS_ALLOWED_URLS override allowed_urls (file only).", peer_env="-"
    )
    install_py_dep_per_model: bool = peer(
        False, "Install the requirements that an archive names, for its workers alone."
    )
    max_archive_bytes: int = setting(
        16 * GIB, "Largest archive to download or open.", unit="bytes", minimum=1
    )
    max_unpacked_bytes: int = setting(
        64 * GIB, "Largest archive after unpacking.", unit="bytes", minimum=1
    )
    max_archive_files: int = setting(100_000, "Most files in one archive.", minimum=1)
    download_timeout_s: float = setting(
        3600.0, "Longest time one download may take.", unit="s", minimum=1
    )

    # Queues, batches, requests (2, 8)
    job_queue_size: int = peer(100, "Jobs that may wait per model version.", minimum=1)
    max_attempts: int = setting(
        2, "Workers that may die under one request before it fails.", minimum=1, maximum=16
    )
    quarantine_s: float = setting(
        300.0, "How long a request that killed workers is not let in again.", unit="s", minimum=0
    )
    queue_full_status: int = setting(
        503, "HTTP status when a queue is full.", choices=("503", "429")
    )
    max_request_size: int = peer(6_553_500, "Largest request body.", unit="bytes", minimum=1)
    max_response_size: int = peer(
        6_553_500, "Largest answer of a handler.", unit="bytes", minimum=1
    )
    max_request_line: int = setting(
        4096, "Longest request line.", unit="bytes", minimum=256, maximum=8190
    )
    max_header_size: int = setting(
        8 * KIB, "Longest header of a request.", unit="bytes", minimum=256, maximum=MIB
    )
    max_inflight_requests: int = setting(
        4096, "Requests one frontend process may hold at once.", minimum=1
    )
    max_body_memory_bytes: int = setting(
        GIB, "Memory for the bodies of all requests that have not ended.", unit="bytes", minimum=1
    )
    arena_max_bytes: int = setting(
        512 * MIB,
        "Shared memory for those of them that are large; 0 = none.",
        unit="bytes",
        minimum=0,
    )
    max_connections: int = setting(
        16_384, "Connections one frontend process may hold per listener.", minimum=1
    )
    head_timeout_s: float = setting(
        20.0, "A request's head must be complete within this time.", unit="s", minimum=0.1
    )
    body_timeout_s: float = setting(
        30.0, "Grace for a request's body, before its rate counts.", unit="s", minimum=0.1
    )
    min_body_rate_bytes: int = setting(
        8 * KIB, "Bytes per second of a body, on average, after that.", unit="bytes", minimum=1
    )
    keep_alive_timeout_s: float = setting(
        75.0, "A connection without a request is closed after this.", unit="s", minimum=0.1
    )
    stall_timeout_s: float = setting(
        60.0,
        "A client that takes nothing of its answer for so long is cut off.",
        unit="s",
        minimum=0.1,
    )
    request_deadline_s: float = setting(
        300.0, "How long a request may wait for a worker to take it up.", unit="s", minimum=0.001
    )
    default_synchronous: bool | None = setting(
        None,
        "Make registration wait for its workers unless the request says otherwise; unset: "
        "as the listener's dialect does (DJL Serving's waits).",
    )
    strict_parameters: bool = setting(
        False, "Answer 400 to a query parameter that does not parse, instead of a warning."
    )
    decode_input_request: bool = peer(True, "Decode text and JSON bodies before the handler.")
    limit_max_image_pixels: bool = peer(True, "Keep the image library's limit on pixels.")

    default_batch_size: int = setting(
        1, "Most requests in one batch, where neither archive nor request says.", minimum=1
    )
    default_batch_delay_s: float = setting(
        0.1, "How long a batch may wait to be filled, likewise.", unit="s", minimum=0
    )

    # Workers (3.4, 8)
    max_idle_s: float = setting(
        60.0,
        "How long a worker beyond a model's minimum must not have been needed before it goes.",
        unit="s",
        minimum=0,
    )
    default_workers_per_model: int = peer(
        0, "Workers of a model registered without a count; 0 = choose.", minimum=0, maximum=4096
    )
    startup_workers_per_model: int = setting(
        0,
        "Workers of a model of the start while default_workers_per_model is 0; 0 = choose.",
        minimum=0,
        maximum=4096,
    )
    default_response_timeout: int = peer(
        120, "A worker silent for longer over one batch is replaced.", unit="s", minimum=1
    )
    default_response_timeout_seconds: int = setting(
        -1, "MMS's other name of it, which counts if it is more than 0.", unit="s", minimum=-1
    )
    default_startup_timeout: int = peer(
        120, "A worker must be loaded within this time.", unit="s", minimum=1
    )
    unregister_model_timeout: int = peer(
        120, "Longest wait for a model's workers to leave.", unit="s", minimum=1
    )
    debug: bool = peer(False, "No time limits for workers, so that a debugger may hold them.")
    ipex_enable: bool = peer(False, "Let base handlers use the Intel extension for PyTorch.")
    ipex_gpu_enable: bool = peer(False, "Let base handlers compute on Intel GPUs.")
    preload_model: bool = setting(
        False, "Load a model once and fork its workers from there, unless it says otherwise."
    )
    default_service_handler: str = peer("", "Handler when an archive names none.")
    service_envelope: str = peer("", "Envelope module around every handler.")
    number_of_gpu: int | None = peer(
        None, "GPUs to use; 0 = none, unset = all.", minimum=0, maximum=1024
    )
    initial_worker_port: int = peer(9000, "Number of the first worker id.", minimum=0)
    initial_distribution_port: int = peer(
        29500, "First port at which the processes of one worker meet.", minimum=1024, maximum=55535
    )
    blacklist_env_vars: str = peer(
        "", "Regular expression; matching variables are kept from workers.", is_pattern=True
    )
    sandbox: str = setting(
        "off",
        "How handlers are fenced; model-config.yaml may ask for more, not for less.",
        choices=("off", "rlimits", "bubblewrap"),
    )
    sandbox_network: bool = setting(
        True, "Let workers in a bubblewrap use the network; false leaves them loopback alone."
    )
    sandbox_paths: tuple[str, ...] = setting(
        (), "Folders and files that workers in a bubblewrap may read, too."
    )
    worker_user: str = setting(
        "", "Who workers are; needs a server that is root or has the capabilities for it."
    )
    sandbox_memory_mb: int = setting(
        0, "Address space of a fenced worker; 0 = any.  Not with GPUs.", unit="MiB", minimum=0
    )
    max_worker_jobs: int = setting(
        0, "Requests after which a worker is replaced; 0 = never.", minimum=0
    )
    max_worker_age_s: float = setting(
        0.0, "Age at which a worker is replaced; 0 = never.", unit="s", minimum=0
    )
    max_worker_memory_mb: int = setting(
        0, "MiB of memory at which a worker is replaced; 0 = never.", minimum=0
    )
    worker_memory_limit_mb: int = setting(
        0, "MiB of memory at which a worker is killed at once; 0 = never.", minimum=0
    )
    queue_wait_target_s: float = setting(
        0.25,
        "Between min_worker and max_worker so many workers are kept that 99 of 100 requests "
        "wait no longer for one.",
        unit="s",
        minimum=0.001,
    )
    reserved_memory_mb: int = setting(
        500,
        "MiB that must stay free: no worker beyond min_worker is started into them, and no "
        "model registered that says what it needs.",
        unit="MiB",
        minimum=0,
    )
    worker_template: bool = setting(
        True, "Fork workers from a process that has imported everything (and torch if need be)."
    )
    worker_log_max_bytes: int = setting(
        10 * MIB, "A worker's log is rolled at this size.", unit="bytes", minimum=64 * KIB
    )

    # Results that clients fetch later (DJL's x-synchronous: false)
    async_results_max: int = setting(1000, "Results that may be kept at once.", minimum=0)
    async_results_max_bytes: int = setting(
        256 * MIB, "Room for all of them, in runtime_dir.", unit="bytes", minimum=0
    )
    async_results_keep_s: float = setting(
        3600.0, "How long a result is kept that nobody fetches.", unit="s", minimum=1
    )

    # DJL Serving's dialect
    djl_describe: str = setting(
        "object",
        "What describes a model of one version: DJL's published page's object, or the array of "
        "its later releases.",
        choices=("object", "array"),
    )
    allow_multi_status: bool = setting(
        False, "Answer DJL's /ping with 207 while models are still to come."
    )
    error_rate_wlm: str = setting(
        "", "DJL: predictions that workers may fail, like 100/PT5M, before /ping says 503."
    )
    error_rate_server: str = setting("", "DJL: those that server and handlers may fail.")
    error_rate_any: str = setting("", "DJL: both together.")
    bad_request_http_code: int = setting(
        400, "DJL: status of a prediction that is asked wrongly.", minimum=400, maximum=599
    )
    throttle_error_http_code: int = setting(
        503, "DJL: status of a prediction for a full queue.", minimum=400, maximum=599
    )
    wlm_error_http_code: int = setting(
        503, "DJL: status of a prediction that workers fail.", minimum=400, maximum=599
    )
    server_error_http_code: int = setting(
        500, "DJL: status of a prediction that the server fails.", minimum=400, maximum=599
    )

    # Processes and their folders
    frontend_processes: int = setting(
        1, "HTTP processes; 0 = one per four processors.", minimum=0, maximum=256
    )
    drain_timeout_s: float = setting(
        30.0, "How long requests in hand may take when the server stops.", unit="s", minimum=0
    )
    orphan_grace_s: float = setting(
        60.0,
        "How long workers wait for the next supervisor when theirs has died; 0 = not at all.",
        unit="s",
        minimum=0,
        maximum=86400,
    )
    start_timeout_s: float = setting(
        300.0, "How long one of our processes may take to become ready.", unit="s", minimum=1
    )
    runtime_dir: Path = setting(Path("/run/stoker"), "Sockets, locks and pid files.")
    state_dir: Path = setting(Path("/var/lib/stoker"), "What must survive a restart.")
    cache_dir: Path = setting(Path("/var/cache/stoker"), "Unpacked archives and downloads.")
    log_dir: Path = setting(Path("/var/log/stoker"), "Logs of workers and of `stoker start`.")

    # Logs
    log_level: str = setting(
        "info", "Least level that is logged.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "text",
        "Lines for people, one JSON object per line, or TorchServe's general pattern.",
        choices=("text", "json", "ts"),
    )
    access_log: str = setting(
        "off",
        "A line for every answer: off; log, in the server's log; or file, access_log.log in "
        "log_dir as TorchServe writes it.",
        choices=("off", "log", "file"),
    )

    log_config: Path | None = peer(
        None, "A log4j2 file to take log_level and log_format from.", peer_env="-"
    )

    # How settings are read (9.2)
    enable_envvars_config: bool = peer(
        False, "Let TS_ variables override everything (file only).", peer_env="-"
    )
    lenient_config: bool = setting(
        False,
        "Name unknown keys and odd booleans of config.properties and go on, as TorchServe "
        "does, instead of refusing the start.",
    )

    # Known, with a later release
    grpc_inference_address: str = later("127.0.0.1", "Host of the inference gRPC listener.")
    grpc_inference_port: int = later(7070, "Port of the inference gRPC listener.", minimum=0)
    grpc_management_address: str = later("127.0.0.1", "Host of the management gRPC listener.")
    grpc_management_port: int = later(7071, "Port of the management gRPC listener.", minimum=0)
    grpc_inference_max_connection_age_ms: int | None = later(
        None, "Age at which an inference gRPC connection is closed.", unit="ms", minimum=0
    )
    grpc_inference_max_connection_age_grace_ms: int | None = later(
        None, "Grace after that age.", unit="ms", minimum=0
    )
    grpc_management_max_connection_age_ms: int | None = later(
        None, "Age at which a management gRPC connection is closed.", unit="ms", minimum=0
    )
    grpc_management_max_connection_age_grace_ms: int | None = later(
        None, "Grace after that age.", unit="ms", minimum=0
    )
    enable_grpc_ssl: bool = later(False, "TLS for the gRPC listeners.")
    metrics_mode: str = peer(
        "prometheus", "Where metrics go.", choices=("prometheus", "log", "legacy")
    )
    metrics_config: Path | None = peer(None, "File that names the metrics.")
    model_metrics_auto_detect: bool = peer(False, "Keep handler metrics that no file names.")
    disable_system_metrics: bool = peer(False, "Do not measure the host.")
    cpu_launcher_enable: bool = peer(
        False, "Pin workers to processor cores; those of a version share them out."
    )
    cpu_launcher_args: str = peer("", "How, in the words of torch.backends.xeon.run_cpu.")
    system_metrics_cmd: str = peer(
        "",
        "A program that measures the host instead of us, every metric_time_interval.",
        peer_env="-",
    )
    metric_time_interval: int = peer(
        60,
        "How often the host is measured where metrics go to logs.",
        unit="s",
        minimum=1,
        peer_env="-",
    )
    ts_header_key_sequence_id: str = peer(
        "ts_request_sequence_id", "Header of a sequence's id.", peer_env="HEADER_KEY_SEQUENCE_ID"
    )
    ts_header_key_sequence_start: str = peer(
        "ts_request_sequence_start",
        "Header that starts a sequence.",
        peer_env="HEADER_KEY_SEQUENCE_START",
    )
    ts_header_key_sequence_end: str = peer(
        "ts_request_sequence_end",
        "Header that ends a sequence.",
        peer_env="HEADER_KEY_SEQUENCE_END",
    )

    # Known, and without meaning outside a Java virtual machine
    number_of_netty_threads: int = moot(0, "See frontend_processes.", minimum=0)
    netty_client_threads: int = moot(0, "Threads towards workers.", minimum=0)
    prefer_direct_buffer: bool = moot(False, "Memory outside the Java heap.")
    async_logging: bool = moot(False, "Logging in a thread.")
    use_native_io: bool = moot(True, "epoll instead of Java's selector.", peer_env="-")
    io_ratio: int = moot(50, "Share of time for input and output.", peer_env="-")
    vmargs: str = moot("", "Options of the virtual machine.", peer_env="-")
    plugins_path: str = moot("", "Java class path of plugins.", peer_env="-")
    cpp_log_config: str = moot("", "Logging of the C++ backend.")
    model_server_home: str = moot("", "Folder of the peer's installation.")
