output "service_repository" {
  description = "Where the image of the service is pushed to."
  value       = aws_ecr_repository.service.repository_url
}

output "project_repository" {
  description = "Where the image of the project is pushed to."
  value       = aws_ecr_repository.project.repository_url
}

output "address" {
  description = "The load balancer's name; the certificate's name must lead there."
  value       = aws_lb.this.dns_name
}

output "tokens" {
  description = "The secret with the bearer tokens."
  value       = aws_secretsmanager_secret.tokens.name
}

output "bucket" {
  description = "Where snapshots, artifacts and packages are copied to."
  value       = aws_s3_bucket.releases.bucket
}
