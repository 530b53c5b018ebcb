#!/bin/sh
# Makes a bucket for Parquet files and Feast's registry: nobody outside of the account gets in, nothing is sent without
# TLS, what is replaced or deleted can be had back for 30 days. For whoever administers the account.
#
#   AWS_REGION=eu-west-1 ./create-bucket.sh acme-features
#
# It can be run again, also on a bucket of yours that is there: but policy and lifecycle take the place of those that it
# has.
set -eu

if [ $# -ne 1 ] || [ -z "${AWS_REGION-}" ]; then
    echo "usage: AWS_REGION=REGION $0 BUCKET" >&2
    exit 2
fi
bucket=$1
# Version 1 of the AWS CLI knows the region by this name only.
export AWS_DEFAULT_REGION="$AWS_REGION"

if ! aws s3api head-bucket --bucket "$bucket" >/dev/null 2>&1; then
    # us-east-1 is the one region that must not be named here.
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

# Objects are the account's, whoever wrote them, and access is a matter of policies alone.
aws s3api put-bucket-ownership-controls --bucket "$bucket" \
    --ownership-controls 'Rules=[{ObjectOwnership=BucketOwnerEnforced}]'

# A job that wrote nonsense over good files is undone by deleting its versions.
aws s3api put-bucket-versioning --bucket "$bucket" --versioning-configuration Status=Enabled

# With a key of S3's own. For a key of yours: SSEAlgorithm aws:kms, KMSMasterKeyID, and own-key.json for Larder's role.
aws s3api put-bucket-encryption --bucket "$bucket" --server-side-encryption-configuration \
    '{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}'

# Old versions and uploads that were never ended would be paid for until somebody remembers them.
aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --lifecycle-configuration '{"Rules": [{
    "ID": "old-versions", "Status": "Enabled", "Filter": {},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}'

aws s3api put-bucket-policy --bucket "$bucket" --policy '{"Version": "2012-10-17", "Statement": [{
    "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
    "Resource": ["arn:aws:s3:::'"$bucket"'", "arn:aws:s3:::'"$bucket"'/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}'

echo "bucket $bucket is there, private, versioned and encrypted"
