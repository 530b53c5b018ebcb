#!/bin/sh
# Creates a table in Feast's layout, as `feast apply` does, but with a stream, so that Larder can follow changes of the
# table. For administrators of the account: of Larder's roles, only one with materialize.json may create tables.
#
#   ./create-table.sh churn.customer_usage          # the name is PROJECT.VIEW, as in Feast
#   ./create-table.sh churn.customer_usage --pitr   # with point-in-time recovery; its price depends on the table's size
#
# The AWS CLI determines the region and the credentials, for example from AWS_REGION and AWS_PROFILE. If the table
# exists, the script keeps its items and turns on its stream.
set -eu

usage() {
    echo "usage: $0 TABLE [--pitr]" >&2
    exit 2
}

[ $# -ge 1 ] || usage
table=$1
pitr=no
case ${2-} in
    "") ;;
    --pitr) pitr=yes ;;
    *) usage ;;
esac

# Version 1 of the AWS CLI reads AWS_DEFAULT_REGION, but not AWS_REGION.
if [ -n "${AWS_REGION-}" ]; then
    export AWS_DEFAULT_REGION="$AWS_REGION"
fi

# With NEW_IMAGE, the record of a change contains the new item. With KEYS_ONLY or OLD_IMAGE, Larder would have to read
# each changed item from the table. With NEW_AND_OLD_IMAGES, Larder would receive data that it does not use.
stream=StreamEnabled=true,StreamViewType=NEW_IMAGE

if ! found=$(aws dynamodb describe-table --table-name "$table" --query Table.StreamSpecification.StreamViewType \
    --output text 2>&1); then
    case $found in
        *ResourceNotFoundException*) ;;
        *)
            echo "$found" >&2
            exit 1
            ;;
    esac
    # On-demand billing, because a first scan, and a job that writes every few hours, cause bursts of requests.
    # Provisioned capacity would throttle these bursts.
    aws dynamodb create-table \
        --table-name "$table" \
        --attribute-definitions AttributeName=entity_id,AttributeType=S \
        --key-schema AttributeName=entity_id,KeyType=HASH \
        --billing-mode PAY_PER_REQUEST \
        --stream-specification "$stream" \
        >/dev/null
    aws dynamodb wait table-exists --table-name "$table"
elif [ "$found" = None ]; then
    aws dynamodb update-table --table-name "$table" --stream-specification "$stream" >/dev/null
    aws dynamodb wait table-exists --table-name "$table"
elif [ "$found" != NEW_IMAGE ] && [ "$found" != NEW_AND_OLD_IMAGES ]; then
    # The view type of a stream cannot be changed. Turning the stream off and on again would interrupt its other
    # readers.
    echo "table $table has a stream of kind $found; turn it off first, or give Larder dynamodb:BatchGetItem" >&2
    exit 1
fi

if [ "$pitr" = yes ]; then
    aws dynamodb update-continuous-backups \
        --table-name "$table" \
        --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true \
        >/dev/null
fi
echo "table $table exists and has a stream"
