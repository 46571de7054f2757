//! Quotas: what users, groups and trees use, and what they may. One method per operation, each one message to the mgr.

use crate::{
    Client,
    error::{Answer, Result},
};
use pvfs_types::{Cred, QuotaOwner, limits};
use pvfs_wire::{
    Op,
    msg::quota::{GetQuotas, LimitChange, Quota, Quotas, SetQuota},
};

impl Client {
    /// What `owner` uses, and may. Tells too whether anything is counted yet.
    ///
    /// # Errors
    /// `EPERM` that is not for `cred` to know.
    pub async fn quota(&self, cred: &Cred, owner: QuotaOwner) -> Result<Quotas> {
        self.quotas_after(cred, Some(owner), None).await
    }

    /// All that `cred` may know of, in the order of [`QuotaOwner`].
    pub async fn quotas(&self, cred: &Cred) -> Result<Quotas> {
        let mut all = self.quotas_after(cred, None, None).await?;
        while !all.end {
            let after = all.quotas.last().map(|quota| quota.owner);
            let page = self.quotas_after(cred, None, after).await?;
            all.end = page.end || page.quotas.is_empty();
            all.quotas.extend(page.quotas);
        }
        Ok(all)
    }

    fn quotas_after<'a>(
        &'a self,
        cred: &'a Cred,
        owner: Option<QuotaOwner>,
        after: Option<QuotaOwner>,
    ) -> Answer<'a, Quotas> {
        let max = u32::try_from(limits::QUOTAS_PAGE_MAX).unwrap_or(u32::MAX);
        self.core.call(Op::GetQuotas, None, async move {
            self.core.ask(cred, |caller| GetQuotas { caller, owner, after, max }).await
        })
    }

    /// Sets what `owner` may use, and tells what it uses.
    ///
    /// # Errors
    /// `EPERM` not root, and not the owner of the root directory; `EINVAL` root's, or a tree in a tree; `E2BIG` a tree that is
    /// too large to be made one at once; `EXDEV` one with hard links to somewhere else.
    pub fn set_quota<'a>(
        &'a self,
        cred: &'a Cred,
        owner: QuotaOwner,
        bytes: LimitChange,
        inodes: LimitChange,
    ) -> Answer<'a, Quota> {
        self.core.call(Op::SetQuota, None, async move {
            self.core.mutate(cred, move |by| SetQuota { by, owner, bytes, inodes }).await
        })
    }
}
