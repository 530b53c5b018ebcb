#!/bin/sh
# Creates a bucket for Parquet files and Feast's registry. The bucket is not accessible from outside the account and
# requires TLS. Replaced and deleted objects can be recovered for 30 days. For administrators of the account.
#
#   AWS_REGION=eu-west-1 ./create-bucket.sh acme-features
#
# You can also run this script on an existing bucket that you own. It then replaces the bucket's policy and lifecycle
# configuration.
set -eu

if [ $# -ne 1 ] || [ -z "${AWS_REGION-}" ]; then
    echo "usage: AWS_REGION=REGION $0 BUCKET" >&2
    exit 2
fi
bucket=$1
# Version 1 of the AWS CLI reads AWS_DEFAULT_REGION, but not AWS_REGION.
export AWS_DEFAULT_REGION="$AWS_REGION"

if ! aws s3api head-bucket --bucket "$bucket" >/dev/null 2>&1; then
    # S3 rejects a LocationConstraint of us-east-1, which is the default.
    if [ "$AWS_REGION" = us-east-1 ]; then
        aws s3api create-bucket --bucket "$bucket" >/dev/null
    else
        aws s3api create-bucket --bucket "$bucket" \
            --create-bucket-configuration "LocationConstraint=$AWS_REGION" >/dev/null
    fi
    aws s3api wait bucket-exists --bucket "$bucket"
fi

aws s3api put-public-access-block --bucket "$bucket" --public-access-block-configuration \
    BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true

# The account owns all objects, regardless of the writer, and only policies control access.
aws s3api put-bucket-ownership-controls --bucket "$bucket" \
    --ownership-controls 'Rules=[{ObjectOwnership=BucketOwnerEnforced}]'

# With versioning, you can undo a job that overwrote good files: delete the versions that the job wrote.
aws s3api put-bucket-versioning --bucket "$bucket" --versioning-configuration Status=Enabled

# Objects are encrypted with a key of S3. To use your own key, set SSEAlgorithm to aws:kms, set KMSMasterKeyID, and
# attach own-key.json to Larder's role.
aws s3api put-bucket-encryption --bucket "$bucket" --server-side-encryption-configuration \
    '{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}'

# Deletes old versions and unfinished uploads, which would otherwise cost money indefinitely.
aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --lifecycle-configuration '{"Rules": [{
    "ID": "old-versions", "Status": "Enabled", "Filter": {},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}'

aws s3api put-bucket-policy --bucket "$bucket" --policy '{"Version": "2012-10-17", "Statement": [{
    "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
    "Resource": ["arn:aws:s3:::'"$bucket"'", "arn:aws:s3:::'"$bucket"'/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}'

echo "bucket $bucket exists and is private, versioned and encrypted"
