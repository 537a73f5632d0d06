# The worker's home is a file system; what must not be lost is copied from there into a bucket as it appears.

resource "aws_efs_file_system" "home" {
  encrypted = true
  tags = {
    Name = var.name
  }
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_mount_target" "home" {
  count           = length(var.private_subnets)
  file_system_id  = aws_efs_file_system.home.id
  subnet_id       = var.private_subnets[count.index]
  security_groups = [aws_security_group.home.id]
}

resource "aws_efs_access_point" "home" {
  file_system_id = aws_efs_file_system.home.id
  posix_user {
    uid = 1034
    gid = 1034
  }
  root_directory {
    path = "/evergreen"
    creation_info {
      owner_uid   = 1034
      owner_gid   = 1034
      permissions = "0750"
    }
  }
}

resource "aws_s3_bucket" "releases" {
  bucket_prefix = "${local.short}-"
}

resource "aws_s3_bucket_versioning" "releases" {
  bucket = aws_s3_bucket.releases.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "releases" {
  bucket = aws_s3_bucket.releases.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
    bucket_key_enabled = true
  }
}

resource "aws_s3_bucket_public_access_block" "releases" {
  bucket                  = aws_s3_bucket.releases.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "releases" {
  bucket = aws_s3_bucket.releases.id
  policy = data.aws_iam_policy_document.releases.json
  # Both change the bucket's policies, which cannot be done at once.
  depends_on = [aws_s3_bucket_public_access_block.releases]
}

data "aws_iam_policy_document" "releases" {
  statement {
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.releases.arn, "${aws_s3_bucket.releases.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
