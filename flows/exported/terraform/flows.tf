# The Prefect server, and the worker that retrains; both are reached from inside only.

resource "aws_service_discovery_http_namespace" "this" {
  name = var.name
}

resource "aws_ecs_task_definition" "prefect" {
  family                   = "${var.name}-prefect"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 2048
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.service.arn

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([{
    name                   = "prefect"
    image                  = "${aws_ecr_repository.project.repository_url}:${var.project}"
    essential              = true
    readonlyRootFilesystem = true
    command                = ["prefect", "server", "start", "--host", "0.0.0.0", "--port", "4200"]
    portMappings           = [{ name = "prefect", containerPort = 4200, protocol = "tcp" }]
    environment = [
      { name = "PREFECT_HOME", value = "/tmp/prefect" },
      # Beside its own code, where it would write the pages otherwise, nothing can be written.
      { name = "PREFECT_SERVER_UI_STATIC_DIRECTORY", value = "/tmp/prefect/pages" },
      { name = "PREFECT_SERVER_DATABASE_DRIVER", value = "postgresql+asyncpg" },
      { name = "PREFECT_SERVER_DATABASE_HOST", value = aws_db_instance.this.address },
      { name = "PREFECT_SERVER_DATABASE_PORT", value = "5432" },
      { name = "PREFECT_SERVER_DATABASE_NAME", value = "postgres" },
      { name = "PREFECT_SERVER_DATABASE_USER", value = "evergreen" },
      # RDS takes no connection without TLS.
      { name = "PGSSLMODE", value = "require" },
    ]
    secrets          = [{ name = "PREFECT_SERVER_DATABASE_PASSWORD", valueFrom = aws_secretsmanager_secret.database.arn }]
    mountPoints      = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
    linuxParameters  = { capabilities = { drop = ["ALL"] }, initProcessEnabled = true }
    logConfiguration = local.logs["prefect"]
  }])
}

resource "aws_ecs_service" "prefect" {
  name            = "${var.name}-prefect"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.prefect.arn
  desired_count   = 1
  launch_type     = "FARGATE"

  # Never two at once: each would start what is scheduled.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  network_configuration {
    subnets         = var.private_subnets
    security_groups = [aws_security_group.flows.id]
  }

  service_connect_configuration {
    enabled   = true
    namespace = aws_service_discovery_http_namespace.this.arn
    service {
      port_name = "prefect"
      client_alias {
        dns_name = "prefect"
        port     = 4200
      }
    }
  }
}

resource "aws_ecs_task_definition" "worker" {
  family                   = "${var.name}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 2048
  memory                   = 8192
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.flows.arn

  volume {
    name = "home"
    efs_volume_configuration {
      file_system_id     = aws_efs_file_system.home.id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = aws_efs_access_point.home.id
        iam             = "ENABLED"
      }
    }
  }

  container_definitions = jsonencode([
    {
      name      = "worker"
      image     = "${aws_ecr_repository.project.repository_url}:${var.project}"
      essential = true
      # `aws ecs execute-command` needs a file system that can be written.
      readonlyRootFilesystem = false
      stopTimeout            = 120
      environment = [
        { name = "PREFECT_API_URL", value = "http://prefect:4200/api" },
        {
          name  = "EVERGREEN_DATABASE_URL"
          value = "postgresql+psycopg://evergreen@${aws_db_instance.this.endpoint}/evergreen?sslmode=require"
        },
      ]
      # PostgreSQL's client reads it; the URL has none.
      secrets          = [{ name = "PGPASSWORD", valueFrom = aws_secretsmanager_secret.database.arn }]
      mountPoints      = [{ sourceVolume = "home", containerPath = "/evergreen", readOnly = false }]
      linuxParameters  = { initProcessEnabled = true }
      logConfiguration = local.logs["worker"]
    },
    {
      # What is in these folders is named by its content, so it never changes once it is there.
      name       = "archive"
      image      = "amazon/aws-cli:2.31.0"
      essential  = true
      entryPoint = ["sh", "-c"]
      command = [<<-EOT
        while true; do
          for folder in snapshots artifacts bentoml/bentos exports; do
            [ ! -d /evergreen/$folder ] || aws s3 sync /evergreen/$folder s3://$BUCKET/$folder --exclude '*.part-*' --no-progress
          done
          sleep 60
        done
      EOT
      ]
      environment = [
        { name = "BUCKET", value = aws_s3_bucket.releases.bucket },
        { name = "HOME", value = "/tmp" },
      ]
      mountPoints      = [{ sourceVolume = "home", containerPath = "/evergreen", readOnly = true }]
      linuxParameters  = { initProcessEnabled = true }
      logConfiguration = local.logs["archive"]
    },
  ])

  depends_on = [aws_efs_mount_target.home]
}

resource "aws_ecs_service" "worker" {
  name                   = "${var.name}-worker"
  cluster                = aws_ecs_cluster.this.id
  task_definition        = aws_ecs_task_definition.worker.arn
  desired_count          = 1
  launch_type            = "FARGATE"
  enable_execute_command = true

  # One worker at a time writes into its home.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  network_configuration {
    subnets         = var.private_subnets
    security_groups = [aws_security_group.flows.id]
  }

  service_connect_configuration {
    enabled   = true
    namespace = aws_service_discovery_http_namespace.this.arn
  }

  # A client of Service Connect only knows the names that were there before it.
  depends_on = [aws_ecs_service.prefect]
}
