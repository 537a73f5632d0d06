resource "aws_db_subnet_group" "this" {
  name_prefix = "${var.name}-"
  subnet_ids  = var.private_subnets
}

resource "aws_db_instance" "this" {
  identifier_prefix = "${local.short}-"
  engine            = "postgres"
  engine_version    = "17"
  instance_class    = "db.t4g.small"
  allocated_storage = 20
  # The storage grows by itself up to here.
  max_allocated_storage = 200
  storage_type          = "gp3"
  storage_encrypted     = true
  multi_az              = true

  # The ledger's database; Prefect's is the one named postgres, which is always there.
  db_name             = "evergreen"
  username            = "evergreen"
  password_wo         = ephemeral.aws_secretsmanager_secret_version.database.secret_string
  password_wo_version = 1

  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false

  backup_retention_period   = 14
  copy_tags_to_snapshot     = true
  deletion_protection       = true
  final_snapshot_identifier = "${local.short}-last"
}
