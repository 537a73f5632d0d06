# The values are never in Terraform's state: the password is made by Secrets Manager, the tokens are put in by a person.

ephemeral "aws_secretsmanager_random_password" "database" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "database" {
  name_prefix = "${var.name}-database-"
  description = "The password of the database"
}

resource "aws_secretsmanager_secret_version" "database" {
  secret_id                = aws_secretsmanager_secret.database.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.database.random_password
  secret_string_wo_version = 1
}

# Read back, so that the database has what the secret holds even when one of the two had to be made later.
ephemeral "aws_secretsmanager_secret_version" "database" {
  secret_id = aws_secretsmanager_secret_version.database.secret_id
}

resource "aws_secretsmanager_secret" "tokens" {
  name_prefix = "${var.name}-tokens-"
  description = "Bearer tokens that the endpoint takes, with blanks between them"
}

# A token to begin with; another value put in later stays.
ephemeral "aws_secretsmanager_random_password" "token" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret_version" "tokens" {
  secret_id                = aws_secretsmanager_secret.tokens.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.token.random_password
  secret_string_wo_version = 1
}
